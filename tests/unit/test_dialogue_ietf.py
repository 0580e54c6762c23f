"""The rules of Resumable Uploads for HTTP as dialogues; the first line of each test names the draft's section."""

import pytest

from tests.support.dialogues import (
    ACCEPTED,
    BUSY,
    REJECTED,
    REJECTING,
    a_file,
    accepts,
    claims,
    completes,
    completes_first,
    creates_whole,
    dialogue,
    postpones,
    rejects,
)
from tests.support.ietf import NEWEST, PROBLEM, VERSIONS, digest
from tus.errors import ChecksumMismatch, UploadGone, UploadLocked, UploadNotFound, UploadReplaced
from tus.models import IETF, TUS, HookReply, HookType, Intent, Outcome, Response, State
from tus.protocols.effects import (
    Ask,
    Authorize,
    Claim,
    Create,
    CreateWhole,
    Digest,
    Fence,
    Inform,
    Load,
    Offer,
    Offered,
    Promise,
    Receive,
    Remove,
    Settle,
    Wait,
)
from tus.testing.dialogue import ID, URL, Ietf, Placeholder, an_upload, asks, created, received, responds

ietf = Ietf(NEWEST)
HOOKS = {"webhook": "https://hooks.example.org/"}


def stored(**values):
    """An upload that this protocol has created."""
    return an_upload(protocol=IETF, **values)


def a_stored_file(state=State.COMPLETE, **values):
    return a_file(state, protocol=IETF, **values)


# -- Upload Creation ----------------------------------------------------------------------------------------------


def test_creation_is_announced_before_the_body_is_read():
    """Status Code 104."""
    location = f"{URL}/" + Placeholder("id")
    dialogue(
        ietf.post(body=5, complete=False, length=9),
        asks(Authorize, Intent.CREATE, {"length": 9, "protocol": IETF}),
        asks(Create, {"length": 9, "is_known": False}).gets(created()),
        asks(
            Inform, {"status": 104, "headers": {"Location": location, "Upload-Draft-Interop-Version": str(NEWEST)}}
        ).gets(True),
        asks(Receive, intake={"offset": 0, "limit": 9}).gets(received(offset=5)),
        responds(201, {"Location": location, "Upload-Complete": "?0", "Upload-Offset": 5}),
    )


@pytest.mark.parametrize("client", [(None, {}), (NEWEST, {"Via": "1.1 proxy"})], ids=["no version", "a proxy"])
def test_no_interim_response_where_it_could_do_harm(client):
    """Status Code 104: not to a client that may not know it, nor through a proxy."""
    version, headers = client
    dialogue(
        Ietf(version).post(body=5, complete=False, length=9, headers=headers),
        asks(Authorize, Intent.CREATE),
        asks(Create).gets(created()),
        asks(Receive, progress=None).gets(received(offset=5)),
        responds(201, {"Location": f"{URL}/{ID}", "Upload-Complete": "?0"}),
    )


def test_the_whole_file_in_one_request_gets_the_answer_of_the_application():
    """Upload Creation: the final response is that to the file."""
    dialogue(
        Ietf(None).post(body=5),
        asks(Authorize, Intent.CREATE),
        asks(CreateWhole).gets(None),
        asks(Create, {"length": 5}).gets(created()),
        *completes(a_stored_file()),
        *accepts(),
        responds(200, {"Upload-Complete": "?1", "Upload-Offset": 5, "X-Result": "stored"}, b"a page"),
    )


def test_a_small_file_is_created_and_handed_over_in_one_step():
    """Upload Creation: a client that gets no interim response."""
    dialogue(
        Ietf(None).post(body=5),
        asks(Authorize, Intent.CREATE),
        creates_whole(a_stored_file()),
        *accepts(),
        responds(200, {"Upload-Complete": "?1", "Upload-Offset": 5, "X-Result": "stored"}, b"a page"),
    )


def test_a_cut_creation_can_be_resumed():
    """Upload Creation: the client asks the URL that was announced."""
    dialogue(
        ietf.post(body=5),
        asks(Authorize, Intent.CREATE),
        asks(Create).gets(created()),
        asks(Inform).gets(True),
        asks(Receive).gets(received(offset=3, cut=True)),
        responds(201, {"Location": f"{URL}/{ID}", "Upload-Complete": "?0", "Upload-Offset": 3}),
    )


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_failed_creation_leaves_nothing_that_its_client_cannot_reach(is_announced):
    """Upload Creation: an upload that was announced stays."""
    removes = [] if is_announced else [asks(Remove(ID))]
    dialogue(
        ietf.post(body=5, headers={"Content-Digest": digest(b"other")}),
        asks(Authorize, Intent.CREATE),
        asks(Create).gets(created()),
        asks(Inform).gets(is_announced),
        asks(Receive).fails(ChecksumMismatch()),
        *removes,
        responds(400, {"Upload-Complete": "?0"}),
    )


def test_a_creation_must_say_whether_it_is_complete():
    """Upload Creation."""
    dialogue(ietf.post(body=5, complete=None), responds(400, {"Upload-Complete": "?0"}))


def test_pre_create_rejects():
    """Hooks: nothing is created."""
    answer = Response(403, "Forbidden", [("Upload-Complete", "?1")], (b"no\n",))
    dialogue(
        ietf.post(body=5),
        asks(Authorize, Intent.CREATE),
        asks(Ask, HookType.PRE_CREATE, {"length": 5}).gets(HookReply(reject=True, response=answer)),
        responds(403, {"Upload-Complete": "?0", "Location": None}, b"no\n"),
        **HOOKS,
    )


# -- Offset Retrieval ---------------------------------------------------------------------------------------------


def test_head_fences_the_running_append():
    """Offset Retrieval, Concurrency: the offset is the one after the fence."""
    dialogue(
        ietf.head(ID),
        asks(Load(ID)).gets(stored(offset=2, length=9)),
        asks(Authorize, Intent.HEAD),
        asks(Fence, {"id": ID}).gets(stored(offset=4, length=9)),
        responds(
            204,
            {"Upload-Offset": 4, "Upload-Complete": "?0", "Upload-Length": 9, "Cache-Control": "no-store"},
        ),
    )


@pytest.mark.parametrize(
    ("state", "said"),
    [(State.COMPLETE, "?0"), (State.HANDING_OVER, "?0"), (State.ACCEPTED, "?1"), (State.REJECTED, "?1")],
)
def test_an_upload_is_complete_after_the_last_word_of_the_application(state, said):
    """Offset Retrieval, Upload-Complete."""
    dialogue(
        ietf.head(ID),
        asks(Load(ID)).gets(a_stored_file(state)),
        asks(Authorize, Intent.HEAD),
        responds(204, {"Upload-Offset": 5, "Upload-Complete": said}),
    )


def test_a_client_without_a_version_gets_the_protocol_of_its_upload():
    """Offset Retrieval: the head of the request says nothing."""
    dialogue(
        Ietf(None).head(ID),
        asks(Load(ID)).gets(stored(offset=2, length=9)),
        asks(Load(ID)).gets(stored(offset=2, length=9)),
        asks(Authorize, Intent.HEAD),
        asks(Fence).gets(stored(offset=2, length=9)),
        responds(204, {"Upload-Complete": "?0", "Upload-Draft-Interop-Version": None, "Tus-Resumable": None}),
    )


@pytest.mark.parametrize(("version", "status"), [(3, 400), (6, 400), (7, 204), (9, 204), (10, 204)])
def test_older_versions_forbid_the_state_in_a_head(version, status):
    """Offset Retrieval, interop versions 3 to 6."""
    asked = [asks(Load(ID)).gets(stored()), asks(Authorize), asks(Fence).gets(stored())]
    lines = [] if status == 400 else asked
    dialogue(Ietf(version).head(ID, headers={"Upload-Offset": 0}), *lines, responds(status))


# -- Upload Append ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_an_append_that_does_not_complete(version):
    """Upload Append: each interop version has its status and field."""
    said = {"Upload-Incomplete": "?1", "Upload-Complete": None} if version == 3 else {"Upload-Complete": "?0"}
    dialogue(
        Ietf(version).patch(ID, offset=2, body=3, complete=False),
        asks(Load(ID)).gets(stored(offset=2, length=9)),
        asks(Authorize, Intent.APPEND, {"id": ID}),
        asks(Receive, intake={"offset": 2, "limit": 7, "ends": False}).gets(received(offset=5)),
        responds(204 if version >= 7 else 201, {"Upload-Offset": 5, "Upload-Draft-Interop-Version": version, **said}),
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_an_append_completes(version):
    """Upload Append: the final response is that to the file."""
    said = {"Upload-Incomplete": "?0", "Upload-Complete": None} if version == 3 else {"Upload-Complete": "?1"}
    dialogue(
        Ietf(version).patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(stored(offset=2)),
        asks(Authorize, Intent.APPEND),
        *completes(a_stored_file(), intake={"length": 5, "ends": True}),
        *accepts(),
        responds(200, {"X-Result": "stored", "Upload-Offset": 5, **said}, b"a page"),
    )


@pytest.mark.parametrize("version", [6, 7, 8, 9, 10])
def test_a_wrong_offset_is_409_before_a_byte_is_read(version):
    """Upload Append, Problem Types."""
    dialogue(
        Ietf(version).patch(ID, offset=3, body=3),
        asks(Load(ID)).gets(stored(offset=2)),
        asks(Authorize),
        responds(
            409,
            {"Upload-Offset": 2, "Upload-Complete": "?0", "Content-Type": "application/problem+json"},
            {"type": PROBLEM + "mismatching-upload-offset", "expected-offset": 2, "provided-offset": 3},
        ),
    )


@pytest.mark.parametrize(("version", "is_refused"), [(5, False), (6, True), (9, True), (10, True)])
def test_an_append_needs_its_media_type(version, is_refused):
    """Media Type application/partial-upload, from interop version 6 on."""
    asked = [asks(Load(ID)).gets(stored(offset=2, length=9)), asks(Authorize), asks(Receive).gets(received(offset=5))]
    lines = [responds(415, {"Accept-Patch": "application/partial-upload"})] if is_refused else [*asked, responds(201)]
    request = Ietf(version).patch(ID, offset=2, body=3, complete=False, headers={"Content-Type": "image/png"})
    dialogue(request, *lines)


def test_an_append_must_say_whether_it_completes():
    """Upload Append, from interop version 7 on."""
    dialogue(ietf.patch(ID, offset=2, body=3, complete=None), responds(400))


@pytest.mark.parametrize("version", [7, 8, 9, 10])
def test_an_announced_overrun_ends_the_upload(version):
    """Length, Problem Types: before a byte is read."""
    dialogue(
        Ietf(version).patch(ID, offset=2, body=4, complete=False),
        asks(Load(ID)).gets(stored(offset=2, length=5)),
        asks(Authorize),
        asks(Remove(ID)),
        responds(400, body={"type": PROBLEM + "inconsistent-upload-length"}),
    )


def test_an_overrun_leaves_the_upload_in_older_versions():
    """Length, before interop version 7."""
    dialogue(
        Ietf(6).patch(ID, offset=2, body=4, complete=False),
        asks(Load(ID)).gets(stored(offset=2, length=5)),
        asks(Authorize),
        responds(400, body={"type": PROBLEM + "inconsistent-upload-length"}),
    )


@pytest.mark.parametrize(("standing", "status"), [(2, 400), (4, 409)])
def test_an_overrun_ends_no_upload_that_a_newer_request_has_taken_over(standing, status):
    """Length, Concurrency."""
    removes = [asks(Remove(ID))] if status == 400 else []
    dialogue(
        ietf.patch(ID, offset=2, body=None, complete=False),
        asks(Load(ID)).gets(stored(offset=2, length=5)),
        asks(Authorize),
        asks(Receive, intake={"limit": 3}).gets(received(offset=2, overran=True)),
        asks(Load(ID)).gets(stored(offset=standing, length=5)),
        *removes,
        responds(status),
    )


def test_a_body_that_ends_before_the_length_is_refused():
    """Length: it said that it completes the upload."""
    dialogue(
        ietf.patch(ID, offset=2, body=None),
        asks(Load(ID)).gets(stored(offset=2, length=9)),
        asks(Authorize),
        asks(Receive).gets(received(offset=5)),
        responds(400, {"Upload-Complete": "?0"}, {"type": PROBLEM + "inconsistent-upload-length"}),
    )


def test_the_length_does_not_change():
    """Length."""
    dialogue(
        ietf.patch(ID, offset=2, body=3, complete=False, length=8),
        asks(Load(ID)).gets(stored(offset=2, length=9)),
        asks(Authorize),
        responds(400, body={"type": PROBLEM + "inconsistent-upload-length"}),
    )


def test_a_body_above_the_limit_of_one_request_is_413():
    """Limits, max-append-size."""
    dialogue(
        ietf.patch(ID, offset=2, body=5, complete=False),
        asks(Load(ID)).gets(stored(offset=2, length=9)),
        asks(Authorize),
        responds(413, {"Upload-Limit": "max-append-size=4"}),
        max_append_size=4,
    )


def test_a_digest_that_does_not_match_is_400():
    """Integrity Digests, Content-Digest: the offset is the old one."""
    dialogue(
        ietf.patch(ID, offset=2, body=3, complete=False, headers={"Content-Digest": digest(b"abc")}),
        asks(Load(ID)).gets(stored(offset=2, length=9)),
        asks(Authorize),
        asks(Receive, intake={"body": {"checksums": [("sha256", ...)]}}).fails(ChecksumMismatch()),
        responds(400, {"Upload-Offset": 2, "Upload-Complete": "?0"}),
    )


def test_progress_is_not_sent_for_bytes_that_a_digest_may_take_back():
    """Integrity Digests, Status Code 104."""
    dialogue(
        ietf.patch(ID, offset=2, body=3, complete=False, headers={"Content-Digest": digest(b"abc")}),
        asks(Load(ID)).gets(stored(offset=2, length=9)),
        asks(Authorize),
        asks(Receive, progress=None).gets(received(offset=2, cut=True)),
        responds(400, {"Upload-Complete": "?0"}),
    )


@pytest.mark.parametrize(("version", "is_sent"), [(4, False), (5, True), (9, True), (10, True)])
def test_progress_is_sent(version, is_sent):
    """Status Code 104, from interop version 5 on."""

    def tells(progress):
        said = progress(4) if progress else Response(0, "")
        return is_sent == ((said.status, dict(said.headers).get("Upload-Offset")) == (104, "4"))

    dialogue(
        Ietf(version).patch(ID, offset=2, body=3, complete=False),
        asks(Load(ID)).gets(stored(offset=2, length=9)),
        asks(Authorize),
        asks(Receive, progress=tells).gets(received(offset=5)),
        responds(204 if version >= 7 else 201),
    )


def test_a_part_of_a_concatenation_is_403():
    """Upload Append: concatenation is of tus 1.0.0."""
    dialogue(
        ietf.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, concat="partial")),
        asks(Authorize),
        responds(403),
    )


# -- Completion ---------------------------------------------------------------------------------------------------


def test_the_whole_file_must_have_its_digest():
    """Integrity Digests, Repr-Digest: the application is not asked to take another file."""
    file = a_stored_file(hashes=("sha256",), announced=(("sha256", b"a" * 32),))
    other = a_stored_file(hashes=("sha256",), announced=file.announced, digests=(("sha256", b"b" * 32),))
    dialogue(
        ietf.patch(ID, offset=5, body=0),
        asks(Load(ID)).gets(file),
        asks(Authorize),
        asks(Claim, {"id": ID}).gets(file),
        asks(Digest).gets(other),
        asks(Settle, Outcome.REJECTED, {"status": 422}),
        responds(422, {"Upload-Complete": "?1"}),
    )


def test_a_store_may_begin_the_hand_over_in_a_step_of_its_own():
    """Upload Append: the response is the application's all the same."""
    dialogue(
        ietf.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(stored(offset=2)),
        asks(Authorize),
        *completes_first(a_stored_file()),
        *accepts(),
        responds(200, {"Upload-Complete": "?1"}, b"a page"),
    )


def test_a_rejection_is_the_last_word():
    """Upload Append: the client does not try again."""
    dialogue(
        ietf.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(stored(offset=2)),
        asks(Authorize),
        *completes(a_stored_file()),
        *rejects(),
        responds(422, {"Upload-Complete": "?1"}, b"no cats\n"),
    )


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_file_that_is_not_taken_is_not_complete(is_moved):
    """Upload Append: the client asks again, and follows no redirection."""
    answer = Response(302, "Found", [("Location", "/login")], (b"",)) if is_moved else BUSY
    dialogue(
        ietf.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(stored(offset=2)),
        asks(Authorize),
        *completes(a_stored_file()),
        *postpones(answer),
        responds(503, {"Upload-Complete": "?0", "Retry-After": ..., "Location": None}),
    )


def test_bytes_that_were_lost_before_a_postponement_are_410():
    """The application could not force them to the disk, and the offset must not decrease."""
    dialogue(
        ietf.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(stored(offset=2)),
        asks(Authorize),
        *completes(a_stored_file()),
        *postpones(upload=a_stored_file(State.TERMINATED)),
        responds(410, {"Upload-Offset": None}),
    )


@pytest.mark.parametrize("version", [3, 9, 10])
def test_an_empty_append_asks_for_the_answer_again(version):
    """Upload Append: the reply was lost."""
    dialogue(
        Ietf(version).patch(ID, offset=5, body=0),
        asks(Load(ID)).gets(a_stored_file(State.REJECTED, answer=REJECTED)),
        asks(Authorize),
        responds(422, body=b"no cats\n"),
    )


@pytest.mark.parametrize("version", [6, 8])
def test_an_append_to_a_completed_upload_is_refused(version):
    """Problem Types, interop versions 6 to 8."""
    dialogue(
        Ietf(version).patch(ID, offset=5, body=0),
        asks(Load(ID)).gets(a_stored_file(State.ACCEPTED)),
        asks(Authorize),
        responds(400, body={"type": PROBLEM + "completed-upload"}),
    )


def test_a_client_that_comes_back_joins_the_running_hand_over():
    """Upload Append: the answer is that of the request that was first."""
    dialogue(
        ietf.patch(ID, offset=5, body=0),
        asks(Load(ID)).gets(a_stored_file(State.HANDING_OVER)),
        asks(Authorize),
        asks(Claim, {"id": ID}).fails(UploadLocked()),
        asks(Wait),
        asks(Claim, {"id": ID}).gets(a_stored_file(State.REJECTED, answer=REJECTED)),
        responds(422, {"Upload-Complete": "?1"}, b"no cats\n"),
    )


def test_a_client_joins_the_hand_over_of_another_holder():
    """Upload Append: the lease was lost while the application had the file, so this request has no claim any more."""
    dialogue(
        ietf.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(stored(offset=2)),
        asks(Authorize),
        *completes(a_stored_file()),
        asks(Offer).gets(Offered(ACCEPTED)),
        asks(Settle, Outcome.ACCEPTED).fails(UploadReplaced()),
        asks(Claim, {"id": ID}).fails(UploadLocked()),
        asks(Wait),
        asks(Claim, {"id": ID}).gets(a_stored_file(State.REJECTED, answer=REJECTED)),
        responds(422, {"Upload-Complete": "?1"}, b"no cats\n"),
    )


def test_a_rejection_that_a_busy_record_does_not_take_is_asked_for_once():
    """Upload Append: the client may ask again, and this request does not."""
    dialogue(
        ietf.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(stored(offset=2)),
        asks(Authorize),
        *completes(a_stored_file()),
        asks(Offer).gets(Offered(REJECTING)),
        asks(Settle, Outcome.REJECTED).fails(UploadLocked()),
        responds(503, {"Upload-Complete": "?0", "Retry-After": ...}),
    )


def test_a_file_that_was_not_taken_is_offered_again():
    """Upload Append."""
    dialogue(
        ietf.patch(ID, offset=5, body=0),
        asks(Load(ID)).gets(a_stored_file(attempts=1)),
        asks(Authorize),
        *claims(a_stored_file(attempts=1)),
        *accepts(),
        responds(200, {"Upload-Complete": "?1"}, b"a page"),
    )


def test_in_the_background_the_client_does_not_wait():
    """handover = background."""
    dialogue(
        ietf.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(stored(offset=2)),
        asks(Authorize),
        asks(Receive, begin=None).gets(received(offset=5, length=5, state=State.COMPLETE)),
        asks(Promise, {"id": ID}).gets(a_stored_file()),
        responds(204, {"Upload-Complete": "?1", "Upload-Offset": 5}),
        handover="background",
    )


# -- Upload Cancellation, Security Considerations -----------------------------------------------------------------


def test_delete_removes_the_upload():
    """Upload Cancellation."""
    dialogue(
        ietf.delete(ID),
        asks(Load(ID)).gets(stored(offset=2)),
        asks(Authorize, Intent.TERMINATE),
        asks(Remove(ID)),
        responds(204),
    )


def test_delete_while_the_application_has_the_file_is_503():
    """Upload Cancellation: clients do not come again after a 4xx."""
    dialogue(
        ietf.delete(ID),
        asks(Load(ID)).gets(a_stored_file(State.HANDING_OVER)),
        asks(Authorize),
        responds(503, {"Retry-After": ..., "Upload-Complete": "?0"}),
    )


@pytest.mark.parametrize(("version", "status"), [(3, 404), (6, 404), (7, 410), (9, 410), (10, 410)])
def test_an_upload_that_is_gone(version, status):
    """Offset Retrieval: 410 from interop version 7 on."""
    gone = UploadGone()
    gone.upload = stored(state=State.TERMINATED)
    dialogue(
        Ietf(version).head(ID), asks(Load(ID)).fails(gone), asks(Authorize), responds(status, {"Upload-Offset": None})
    )


def test_an_expired_upload_is_410_and_is_not_fenced():
    """Offset Retrieval."""
    dialogue(
        ietf.head(ID),
        asks(Load(ID)).gets(stored(offset=2, expires_at=100.0)),
        asks(Authorize),
        responds(410, {"Upload-Offset": None}),
        now=100.0,
    )


@pytest.mark.parametrize("request_", [ietf.patch(ID, offset=2, body=3), ietf.head(ID), ietf.delete(ID)])
def test_a_foreign_upload_is_404_in_the_words_for_an_unknown_one(request_):
    """Security Considerations: an upload does not exist for another principal."""
    unknown = dialogue(request_, asks(Load(ID)).fails(UploadNotFound()), asks(Authorize).gets("bob"), responds(404))
    foreign = dialogue(
        request_,
        asks(Load(ID)).gets(stored(offset=2, length=9, principal="ann", expires_at=50.0)),
        asks(Authorize).gets("bob"),
        responds(404),
        now=100.0,
    )
    assert foreign == unknown


@pytest.mark.parametrize("protocol", [TUS, IETF])
def test_without_a_version_a_foreign_upload_does_not_show_its_protocol(protocol):
    """Security Considerations: the response to a bare HEAD is the same for both protocols."""
    request = Ietf(None).head(ID)
    unknown = dialogue(
        request,
        asks(Load(ID)).fails(UploadNotFound()),
        asks(Load(ID)).fails(UploadNotFound()),
        asks(Authorize).gets("bob"),
        responds(404),
    )
    upload = an_upload(offset=2, length=9, principal="ann", protocol=protocol)
    foreign = dialogue(
        request, asks(Load(ID)).gets(upload), asks(Load(ID)).gets(upload), asks(Authorize).gets("bob"), responds(404)
    )
    assert foreign == unknown
