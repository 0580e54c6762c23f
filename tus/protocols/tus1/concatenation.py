"""Concatenation: a final upload is made once its parts are there, by the request that names them or the last part's."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from tus.errors import BadRequest, StorageUnavailable, TooLarge, UploadGone, UploadLocked, UploadNotFound
from tus.models import Intent, Response, State, Upload
from tus.options import Options
from tus.protocols import digests, hook_replies
from tus.protocols.admission import check_alive, check_owner
from tus.protocols.effects import Concatenate, Create, Effect, FinalsOf, Load, Promise, Remove, Steps, Touch, Watch
from tus.protocols.handover import decided
from tus.protocols.tus1 import replies, requests
from tus.protocols.tus1.completion import Completion, reply_to


class Concatenation(Completion):
    """A request that may complete a part, or make a final upload."""

    def create_final(self, command: requests.Create) -> Steps:
        """Make a final upload, or find the one that the same request has made before."""
        options = self.options
        parts = yield from load_all(command.parts)
        draft = Upload(
            length=requests.total_length(parts),
            raw_metadata=command.raw_metadata,
            concat=command.concat,
            parts=command.parts,
            service=options.service_name,
        )
        draft = digests.requested(draft, self.request.headers, options.digest)
        draft, reply = yield from self.admit(Intent.CONCATENATE, draft)
        for part in parts:
            check_owner(part, draft.principal)
            check_alive(part, self.now)
        requests.decide_concatenation(parts, options, self.extensions)
        final = yield from _find_or_create_final(replace(draft, is_known=False), self.now)
        if final.created_at >= self.now and options.has_hooks:
            yield from self.announce(final)
        final = yield from _fill(final, parts, options)
        if final.state == State.RECEIVING and not final.is_known:
            # From now on the request that completes the last part hands it over; one that has just done so did not.
            final = yield Promise(final)
            final = yield from _fill(final, (yield from load_all(final.parts)), options)
        response = hook_replies.merged(replies.created(final, command.creation_url, with_offset=False), reply)
        if final.is_pending:
            return (yield from self.complete(final, response))
        return reply_to(response, decided(final)) if final.is_complete else response

    def complete_part(self, upload: Upload, response: Response) -> Steps:
        """Go on with the final uploads that wait for a part; any other upload has none."""
        if not upload.is_partial:
            return response
        finals = yield FinalsOf(upload)
        if upload.state == State.RECEIVING:
            for final_id in finals:
                yield Touch(final_id)  # it must not expire while its parts are on their way
            return response
        pending = []
        for final_id in finals:
            try:
                final: Upload = yield Load(final_id)
                if not final.is_known:
                    continue  # its own request has yet to fill it, or was refused
                parts = yield from load_all(final.parts)
                final = yield from _fill(final, parts, self.options)
            except (UploadNotFound, UploadGone, TooLarge, BadRequest):
                continue  # that final upload cannot be made any more; this part is complete all the same
            if final.is_pending:
                pending.append(final)
        answers = []
        busy: UploadLocked | None = None
        for final in pending:
            try:
                answers.append((yield from self.complete(final, response)))
            except UploadLocked as error:
                busy = error
        if busy is not None and not answers:
            raise busy
        return max(answers, key=lambda reply: reply.status, default=response)


def _find_or_create_final(draft: Upload, now: float) -> Generator[Effect, Any, Upload]:
    """The final upload that this request means.

    Its id follows from the request, so that the same request, repeated because its reply was lost, finds the upload
    that exists, also after it was accepted. The ids of the parts are secrets, and so is a digest of them. Once that
    upload was removed, or its record has expired, the same request means another one.
    """
    for attempt in range(100):
        try:
            final: Upload = yield Create(replace(draft, id=draft.id or final_id(draft, attempt)))
        except UploadGone:
            continue
        if draft.id and final.parts != draft.parts:
            raise StorageUnavailable()  # it is another upload that has the id which a hook has given
        if not final.has_expired(now):
            return final
    raise UploadLocked("This concatenation was done many times lately; try again later.", retry_after=60)


def final_id(draft: Upload, attempt: int) -> str:
    """The id of the final upload that a request makes, 32 hexadecimal digits."""
    principal = "" if draft.principal is None else "\0" + draft.principal
    announced = "".join(f"\0{algorithm}\0{digest.hex()}" for algorithm, digest in draft.announced)
    seed = "\0".join((*draft.parts, draft.raw_metadata, str(attempt))) + principal + announced
    return hashlib.blake2b(seed.encode("utf-8", "surrogateescape"), digest_size=16, person=b"tus final").hexdigest()


def load_all(upload_ids: tuple[str, ...]) -> Generator[Effect, Any, list[Upload]]:
    """The uploads of these ids."""
    uploads = []
    for upload_id in upload_ids:
        uploads.append((yield Load(upload_id)))  # noqa: PERF401 - a comprehension cannot yield
    return uploads


def _fill(final: Upload, parts: list[Upload], options: Options) -> Generator[Effect, Any, Upload]:
    """Concatenate if every part is there, else have the parts call back."""
    if final.state != State.RECEIVING:
        return final
    if not all(part.is_complete for part in parts):
        parts = yield Watch(final)  # one of them may have been completed while we looked
        if not all(part.is_complete for part in parts):
            return final
    try:
        requests.check_total(parts, options)
    except TooLarge:
        yield Remove(final.id)
        raise
    filled: Upload = yield Concatenate(final, tuple(parts))
    return filled
