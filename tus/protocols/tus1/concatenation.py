"""Concatenation: the request that names the parts, or the one that completes the last part, fills the final upload."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from tus.errors import (
    BadRequest,
    OffsetMismatch,
    RequestError,
    StorageFull,
    StorageUnavailable,
    TooLarge,
    UploadGone,
    UploadLocked,
    UploadNotFound,
)
from tus.models import Intent, Response, State, Upload
from tus.options import Options
from tus.protocols import digests, hook_replies
from tus.protocols.admission import check_alive, check_owner
from tus.protocols.conversation import UNLOADED, Admission
from tus.protocols.effects import Concatenate, Create, Effect, FinalsOf, Load, Promise, Remove, Steps, Touch, Watch
from tus.protocols.handover import decided
from tus.protocols.origins import origin_of
from tus.protocols.tus1 import replies, requests
from tus.protocols.tus1.completion import Completion, reply_to


class Concatenation(Completion):
    """One request that may complete a part, or create a final upload."""

    def create_final(self, command: requests.Create) -> Steps:
        """Create a final upload, or find the one that the same request has created before."""
        options = self.options
        missing: RequestError | None = None
        parts: list[Upload] = []
        try:
            parts = yield from load_all(command.parts)
        except UNLOADED as error:
            # The client gets it once it has permission. A final upload outlives its parts, and a key finds it.
            missing = error
        draft = Upload(
            length=None if missing else requests.total_length(parts),
            raw_metadata=command.raw_metadata,
            concat=command.concat,
            parts=command.parts,
            service=options.service_name,
            origin=origin_of(self.request),
            is_known=False,
            # So that an application that is asked about creations alone is asked who it is that the parts belong to.
            principal=next((part.principal for part in parts if part.principal is not None), None),
            state=State.RECEIVING if missing is None else State.TERMINATED,
        )
        draft = digests.requested(draft, self.request.headers, options.digest)
        admission = yield from self.admit(Intent.CONCATENATE, draft, partial(self._check_parts, parts, missing))
        final = admission.found
        if final is None:
            final = yield from self._create_final(admission)
        if final.state == State.RECEIVING:
            if missing is not None:
                raise self.error_for(missing, final.principal)
            try:
                final = yield from _fill(final, parts, options)
            except StorageFull:
                if not final.is_known:  # no client has its URL
                    with suppress(RequestError):
                        yield from self.remove(final)
                raise
        if final.state == State.RECEIVING and not final.is_known:
            # From now on the request that completes the last part hands it over. Look again, because the last part may
            # have been completed just before.
            final = yield Promise(final)
            final = yield from _fill(final, (yield from load_all(final.parts)), options)
        response = hook_replies.merged(replies.created(final, command.creation_url, with_offset=False), admission.reply)
        if final.is_pending:
            return self.complete(final, response)
        return reply_to(response, decided(final)) if final.is_complete else response

    def _check_parts(self, parts: list[Upload], missing: RequestError | None, principal: str | None) -> None:
        """Check that a principal may concatenate these parts, and that they can be concatenated.

        Raises:
            RequestError: a part is missing, or belongs to another principal, which must be the same to the client; or
                the parts do not fit together.
        """
        for part in parts:
            check_owner(part, principal)
        if missing is not None:
            raise self.error_for(missing, principal)
        for part in parts:
            check_alive(part, self.now)
        requests.decide_concatenation(parts, self.options, self.extensions)

    def _create_final(self, admission: Admission) -> Generator[Effect, Any, Upload]:
        """Create a final upload, or find the one that the same request has created before."""
        draft = admission.draft
        if draft.fingerprint:
            final, is_new = yield from self.create(admission)
        else:
            final = yield from _find_or_create_final(draft, self.now)
            is_new = final.created_at >= self.now
        if is_new and self.options.has_hooks:
            try:
                yield from self.announce(final)
            except RequestError:
                yield Remove(final.id)  # else a retry finds it, and there is no event
                raise
        return final

    def complete_part(self, upload: Upload, response: Response) -> Steps:
        """Fill the final uploads that wait for a part, hand them over, and return the reply."""
        if not upload.is_partial:
            return response
        finals = yield FinalsOf(upload)
        if upload.state == State.RECEIVING:
            if finals:
                yield Touch(tuple(finals))  # they must not expire while their parts are being uploaded
            return response
        pending = []
        loaded: dict[str, Upload] = {}
        for final_id in finals:
            try:
                final: Upload = yield Load(final_id)
                if not final.is_known:
                    continue  # its own request will fill it, or was refused
                parts = yield from load_all(final.parts, loaded)
                final = yield from _fill(final, parts, self.options)
            except (UploadNotFound, UploadGone, TooLarge, BadRequest):
                continue  # that final upload cannot be filled any more, but this part is complete
            if final.is_pending:
                pending.append(final)
        answers = []
        busy: RequestError | None = None
        for final in pending:
            # What happens to a final upload must not look like an error of this part: with a 404 its client would start
            # again, and an offset would be that of the other upload.
            try:
                answers.append((yield from self.complete(final, response)))
            except (UploadNotFound, UploadGone):
                continue  # another request has removed it meanwhile
            except OffsetMismatch:
                busy = StorageUnavailable()  # the disk has lost bytes of it; a retry fills it again
            except UploadLocked as error:
                busy = error
        if busy is not None and not answers:
            raise busy
        return max(answers, key=lambda reply: reply.status, default=response)


def _find_or_create_final(draft: Upload, now: float) -> Generator[Effect, Any, Upload]:
    """Return the final upload of this request.

    Its id is derived from the request. So a client that retries because the reply was lost gets the same upload, even
    after it was accepted. The ids of the parts are secrets, and so is a digest of them. After the upload was removed,
    or its record has expired, the same request creates another upload.

    Raises:
        StorageUnavailable: another upload has the id that a hook has chosen.
        UploadLocked: the same request has created too many uploads.
    """
    for attempt in range(100):
        try:
            final: Upload = yield Create(replace(draft, id=draft.id or final_id(draft, attempt)))
        except UploadGone:
            continue
        if draft.id and final.parts != draft.parts:
            raise StorageUnavailable()  # another upload has the id that a hook has chosen
        if not final.has_expired(now):
            return final
    raise UploadLocked("This concatenation was repeated too often; try again later.", retry_after=60)


def final_id(draft: Upload, attempt: int) -> str:
    """Return the id of the final upload that a request creates, 32 hexadecimal digits."""
    principal = "" if draft.principal is None else "\0" + draft.principal
    announced = "".join(f"\0{algorithm}\0{digest.hex()}" for algorithm, digest in draft.announced)
    seed = "\0".join((*draft.parts, draft.raw_metadata, str(attempt))) + principal + announced
    return hashlib.blake2b(seed.encode("utf-8", "surrogateescape"), digest_size=16, person=b"tus final").hexdigest()


def load_all(
    upload_ids: tuple[str, ...], loaded: dict[str, Upload] | None = None
) -> Generator[Effect, Any, list[Upload]]:
    """Load the uploads with these ids, each once.

    Args:
        upload_ids: the ids; one may occur several times.
        loaded: uploads that are loaded already; this function adds to them.
    """
    loaded = {} if loaded is None else loaded
    for upload_id in upload_ids:
        if upload_id not in loaded:
            loaded[upload_id] = yield Load(upload_id)
    return [loaded[upload_id] for upload_id in upload_ids]


def _fill(final: Upload, parts: list[Upload], options: Options) -> Generator[Effect, Any, Upload]:
    """Concatenate if all parts are complete; else record in the parts that the final upload waits for them."""
    if final.state != State.RECEIVING:
        return final
    if not all(part.is_complete for part in parts):
        parts = yield Watch(final)  # another request may have completed a part meanwhile
        if not all(part.is_complete for part in parts):
            return final
    try:
        requests.check_total(parts, options)
    except TooLarge:
        yield Remove(final.id)
        raise
    filled: Upload = yield Concatenate(final, tuple(parts))
    return filled
