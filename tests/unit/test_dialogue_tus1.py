"""The rules of tus 1.0.0 as dialogues: a request, the effects and their replies, the response.

The first line of each test names the section of the protocol, or the promise of this package, that it is about.
"""

from dataclasses import replace

import pytest

from tests.support.dialogues import (
    ACCEPTED,
    REJECTED,
    a_file,
    accepts,
    begins,
    claims,
    completes,
    completes_first,
    creates_whole,
    dialogue,
    postpones,
    rejects,
)
from tus.errors import (
    ChecksumMismatch,
    Forbidden,
    StorageFull,
    StorageUnavailable,
    UploadGone,
    UploadLocked,
    UploadNotFound,
    UploadReplaced,
)
from tus.models import HookReply, HookType, Intent, Outcome, Response, State
from tus.protocols.effects import (
    Ask,
    Authorize,
    Claim,
    Concatenate,
    Create,
    CreateOnce,
    CreateWhole,
    Fence,
    FinalsOf,
    Load,
    Name,
    Offer,
    Offered,
    Peek,
    Peeked,
    Promise,
    Queue,
    ReadBack,
    Receive,
    Remove,
    Serve,
    Settle,
    Tell,
    Unqueue,
    Watch,
)
from tus.testing import dialogue as tester
from tus.testing.dialogue import (
    ID,
    OTHER,
    URL,
    Placeholder,
    an_upload,
    asks,
    created,
    raises,
    received,
    responds,
    tus1,
)

FINAL = "f" * 32
HOOKS = {"webhook": "https://hooks.example.org/"}
CHECKSUM = {"Upload-Checksum": "sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00="}


# -- Idempotency-Key ----------------------------------------------------------------------------------------------

KEY = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}


def names():
    return asks(Name, '["/files", null, "8e03978e-40d5-43e8-bc93-6894a57f9324"]').gets(ID)


def fingerprint_of(request):
    seen = []
    tester.dialogue(
        request,
        names(),
        asks(Load, ID).fails(UploadNotFound()),
        asks(CreateOnce).gets(lambda effect: seen.append(effect.draft) or effect.draft),
        responds(201),
    )
    return seen[0].fingerprint


def test_a_creation_with_a_key_gets_the_id_that_the_store_makes_of_it():
    """draft-ietf-httpapi-idempotency-key-header-07, Idempotency Enforcement: first time request."""
    request = tus1.post(length=9, headers=KEY)
    tester.dialogue(
        request,
        names(),
        asks(Load, ID).fails(UploadNotFound()),
        asks(CreateOnce, {"id": ID, "length": 9, "fingerprint": ...}).gets(created()),
        responds(201, {"Location": f"{URL}/{ID}"}),
    )
    assert len(fingerprint_of(request)) == 32


def test_a_repeated_creation_asks_no_hook_and_creates_nothing():
    """draft-ietf-httpapi-idempotency-key-header-07, Idempotency Enforcement: duplicate request."""
    request = tus1.post(length=9, headers=KEY)
    tester.dialogue(
        request,
        names(),
        asks(Load, ID).gets(an_upload(length=9, offset=3, fingerprint=fingerprint_of(request))),
        responds(201, {"Location": f"{URL}/{ID}", "Upload-Offset": 3}),
        **HOOKS,
    )


def test_a_repeated_body_is_not_appended_to_the_bytes_of_the_first():
    """This package: the running request is ended, and the client resumes at the offset."""
    request = tus1.post(length=9, body=9, headers=KEY)
    fingerprint = fingerprint_of(tus1.post(length=9, headers=KEY))
    tester.dialogue(
        request,
        names(),
        asks(Load, ID).gets(an_upload(length=9, offset=3, fingerprint=fingerprint)),
        asks(Fence).gets(an_upload(length=9, offset=5, fingerprint=fingerprint)),
        responds(201, {"Location": f"{URL}/{ID}", "Upload-Offset": 5}),
    )


def test_of_two_creations_at_the_same_moment_one_creates():
    """This package: the other one finds the upload, after the hooks have allowed it."""
    request = tus1.post(length=9, headers=KEY)
    tester.dialogue(
        request,
        names(),
        asks(Load, ID).fails(UploadNotFound()),
        asks(Ask, HookType.PRE_CREATE, {"id": ""}),
        asks(CreateOnce),
        asks(Load, ID).gets(an_upload(length=9, fingerprint=fingerprint_of(request))),
        responds(201, {"Location": f"{URL}/{ID}"}),
        **HOOKS,
    )


def test_a_hook_that_chooses_the_same_id_again_finds_the_upload():
    """This package: the fingerprint shows that the same request has created it."""
    request = tus1.post(length=9, headers=KEY)
    tester.dialogue(
        request,
        names(),
        asks(Load, ID).fails(UploadNotFound()),
        asks(Ask, HookType.PRE_CREATE).gets(HookReply(id=OTHER)),
        asks(CreateOnce, {"id": OTHER}),
        asks(Load, OTHER).gets(an_upload(id=OTHER, length=9, fingerprint=fingerprint_of(request))),
        responds(201, {"Location": f"{URL}/{OTHER}"}),
        **HOOKS,
    )


def test_a_hook_cannot_choose_the_id_of_another_upload():
    """This package: the client is not at fault, so it is asked to retry."""
    tester.dialogue(
        tus1.post(length=9, headers=KEY),
        names(),
        asks(Load, ID).fails(UploadNotFound()),
        asks(Ask, HookType.PRE_CREATE).gets(HookReply(id=OTHER)),
        asks(CreateOnce, {"id": OTHER}),
        asks(Load, OTHER).gets(an_upload(id=OTHER, length=9)),
        responds(503),
        **HOOKS,
    )


def test_another_request_under_the_key_is_refused():
    """draft-ietf-httpapi-idempotency-key-header-07, Error Handling."""
    tester.dialogue(
        tus1.post(length=9, headers=KEY),
        names(),
        asks(Load, ID).gets(an_upload(length=9, fingerprint="0" * 32)),
        responds(422, {"Location": None}, "Idempotency-Key"),
    )


def test_a_store_that_makes_no_ids_ignores_the_key():
    """This package: the key is an offer of the store."""
    tester.dialogue(
        tus1.post(length=9, headers=KEY),
        asks(Name),
        asks(Create, {"id": "", "fingerprint": ""}).gets(created()),
        responds(201, {"Location": f"{URL}/{ID}"}),
    )


# -- Core ---------------------------------------------------------------------------------------------------------


def test_patch_appends_from_the_offset():
    """Core, PATCH."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=9)),
        asks(Authorize, Intent.APPEND, {"id": ID}),
        asks(Receive, intake={"offset": 2, "limit": 7}).gets(received(offset=5)),
        responds(204, {"Tus-Resumable": "1.0.0", "Upload-Offset": 5}),
    )


@pytest.mark.parametrize("offset", [1, 3])
def test_a_wrong_offset_is_409_before_a_byte_is_read(offset):
    """Core, PATCH."""
    dialogue(
        tus1.patch(ID, offset=offset, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=9)),
        asks(Authorize, Intent.APPEND),
        responds(409, {"Tus-Resumable": "1.0.0", "Upload-Offset": 2}),
    )


def test_another_content_type_is_415():
    """Core, PATCH."""
    request = tus1.patch(ID, offset=2, body=3, headers={"Content-Type": "application/octet-stream"})
    dialogue(request, responds(415, {"Tus-Resumable": "1.0.0"}))


@pytest.mark.parametrize("version", ["0.2.2", None])
def test_another_version_is_412(version):
    """Core, Tus-Version."""
    request = tus1.patch(ID, offset=2, body=3, headers={"Tus-Resumable": version})
    dialogue(request, responds(412, {"Tus-Version": "1.0.0"}))


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_method_can_be_overridden(method):
    """Core, X-HTTP-Method-Override."""
    dialogue(
        tus1.request(method, ID, headers={"X-HTTP-Method-Override": "HEAD"}),
        asks(Load(ID)).gets(an_upload(offset=2, length=9)),
        asks(Authorize, Intent.HEAD),
        responds(200, {"Upload-Offset": 2}),
    )


def test_head_says_how_an_upload_stands():
    """Core, HEAD."""
    dialogue(
        tus1.head(ID),
        asks(Load(ID)).gets(an_upload(offset=2, length=9, raw_metadata="filename YQ==,empty")),
        asks(Authorize, Intent.HEAD),
        responds(
            200,
            {
                "Upload-Offset": 2,
                "Upload-Length": 9,
                "Upload-Metadata": "filename YQ==,empty",
                "Cache-Control": "no-store",
                "Upload-Defer-Length": None,
            },
        ),
    )


def test_head_of_an_upload_that_cannot_be_read_is_423():
    """Core, HEAD: clients begin again from zero after a 5xx."""
    dialogue(
        tus1.head(ID),
        asks(Load(ID)).fails(StorageUnavailable()),
        responds(423, {"Retry-After": ..., "Upload-Offset": None, "Cache-Control": "no-store"}, b""),
    )


@pytest.mark.parametrize("download", [False, True])
def test_get_of_an_upload_that_cannot_be_read_is_423_too(download):
    """Core, HEAD: a cache may have turned it into GET."""
    dialogue(
        tus1.request("GET", ID),
        asks(Load(ID)).fails(StorageUnavailable()),
        responds(423, {"Retry-After": ..., "Upload-Offset": None}),
        download=download,
    )


def test_get_of_a_file_that_is_not_kept_reports_the_offset_to_a_client_of_the_protocol():
    """Core, HEAD: a cache may have turned it into GET."""
    dialogue(
        tus1.request("GET", ID),
        asks(Load(ID)).gets(a_file(State.ACCEPTED)),
        asks(Authorize, Intent.DOWNLOAD),
        asks(Serve).fails(UploadGone()),
        asks(Authorize, Intent.HEAD),
        responds(200, {"Upload-Offset": 5, "Upload-Length": 5, "Cache-Control": "no-store"}, b""),
        download=True,
    )


def test_a_body_that_is_announced_too_long_is_413_before_a_byte_is_read():
    """Core, PATCH."""
    dialogue(
        tus1.patch(ID, offset=2, body=4),
        asks(Load(ID)).gets(an_upload(offset=2, length=5)),
        asks(Authorize, Intent.APPEND),
        responds(413, {"Tus-Resumable": "1.0.0"}),
    )


def test_a_chunked_body_that_overruns_is_413():
    """Core, PATCH."""
    dialogue(
        tus1.patch(ID, offset=2, body=None),
        asks(Load(ID)).gets(an_upload(offset=2, length=5)),
        asks(Authorize, Intent.APPEND),
        asks(Receive, intake={"limit": 3}).gets(received(offset=2, overran=True)),
        responds(413, body="3 bytes"),
    )


def test_bytes_before_a_cut_count():
    """Core: the offset is that of the bytes that arrived."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=9)),
        asks(Authorize, Intent.APPEND),
        asks(Receive).gets(received(offset=4, cut=True)),
        responds(204, {"Upload-Offset": 4}),
    )


def test_a_full_disk_is_507():
    """Core, PATCH: a client that asks later resumes."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=9)),
        asks(Authorize, Intent.APPEND),
        asks(Receive).gets(received(offset=4, failure=StorageFull())),
        responds(507, {"Tus-Resumable": "1.0.0", "Retry-After": ...}),
    )


def test_an_error_that_is_not_of_the_package_is_not_hidden():
    """The exchange answers refusals only."""
    dialogue(tus1.head(ID), asks(Load(ID)).fails(OSError()), raises(OSError))


# -- Creation -----------------------------------------------------------------------------------------------------


def test_creation():
    """Creation, POST."""
    dialogue(
        tus1.post(length=5, headers={"Upload-Metadata": "filename YQ=="}),
        asks(Authorize, Intent.CREATE, {"id": "", "length": 5}).gets("ann"),
        asks(Create, {"length": 5, "raw_metadata": "filename YQ==", "principal": "ann", "is_known": True}).gets(
            created()
        ),
        responds(201, {"Location": f"{URL}/{ID}", "Upload-Offset": None, "Tus-Resumable": "1.0.0"}),
    )


def test_a_size_above_the_limit_is_413():
    """Creation, POST: nothing is created."""
    dialogue(tus1.post(length=5), responds(413), max_size=4)


def test_creation_defers_the_length():
    """Creation, Upload-Defer-Length."""
    dialogue(
        tus1.post(length=None),
        asks(Authorize, Intent.CREATE),
        asks(Create, {"length": None}).gets(created()),
        responds(201, {"Location": f"{URL}/{ID}"}),
    )


def test_head_says_that_the_length_is_deferred():
    """Creation, Upload-Defer-Length."""
    dialogue(
        tus1.head(ID),
        asks(Load(ID)).gets(an_upload(offset=2)),
        asks(Authorize, Intent.HEAD),
        responds(200, {"Upload-Defer-Length": 1, "Upload-Length": None, "Upload-Offset": 2}),
    )


def test_a_patch_sets_the_deferred_length():
    """Creation, Upload-Defer-Length."""
    dialogue(
        tus1.patch(ID, offset=2, body=3, headers={"Upload-Length": 9}),
        asks(Load(ID)).gets(an_upload(offset=2)),
        asks(Authorize, Intent.APPEND),
        asks(Receive, intake={"length": 9, "limit": 7}).gets(received(offset=5, length=9)),
        responds(204, {"Upload-Offset": 5}),
    )


def test_the_length_does_not_change():
    """Creation, Upload-Defer-Length."""
    dialogue(
        tus1.patch(ID, offset=2, body=3, headers={"Upload-Length": 8}),
        asks(Load(ID)).gets(an_upload(offset=2, length=9)),
        asks(Authorize, Intent.APPEND),
        responds(400, body="length is 9;"),
    )


def test_creation_with_upload_that_is_cut_reports_the_url_and_the_offset():
    """Creation With Upload."""
    dialogue(
        tus1.post(length=9, body=9),
        asks(Authorize, Intent.CREATE),
        asks(CreateWhole).gets(None),
        asks(Create, {"length": 9}).gets(created()),
        asks(Receive, {"id": ID}, {"offset": 0, "limit": 9}).gets(received(offset=4, cut=True)),
        responds(201, {"Location": f"{URL}/{ID}", "Upload-Offset": 4}),
    )


def test_a_small_file_is_created_and_handed_over_in_one_step():
    """Creation With Upload."""
    dialogue(
        tus1.post(length=5, body=5),
        asks(Authorize, Intent.CREATE),
        creates_whole(a_file()),
        *accepts(),
        responds(201, {"Location": f"{URL}/{ID}", "Upload-Offset": 5}),
    )


def test_a_small_file_that_does_not_fit_leaves_nothing():
    """Creation With Upload: the store has created nothing."""
    dialogue(
        tus1.post(length=5, body=5),
        asks(Authorize, Intent.CREATE),
        asks(CreateWhole).fails(StorageFull()),
        responds(507, {"Location": None}),
    )


@pytest.mark.parametrize(
    ("headers", "options"),
    [
        (CHECKSUM, {}),
        ({"Upload-Length": "6"}, {}),
        ({"Upload-Concat": "partial"}, {}),
        ({}, {"handover": "background"}),
    ],
)
def test_other_creations_take_several_steps(headers, options):
    """Creation With Upload."""
    dialogue(
        tus1.post(length=5, body=5, headers=headers),
        asks(Authorize, Intent.CREATE),
        asks(Create).fails(StorageFull()),
        responds(507),
        **options,
    )


def test_creation_with_upload_that_is_refused_leaves_nothing():
    """Creation With Upload: its client gets no URL."""
    dialogue(
        tus1.post(length=9, body=9, headers=CHECKSUM),
        asks(Authorize, Intent.CREATE),
        asks(Create).gets(created()),
        asks(Receive).fails(ChecksumMismatch()),
        asks(Remove(ID)),
        responds(460, {"Location": None}),
    )


# -- Expiration, Checksum, Termination ----------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [tus1.patch(ID, offset=2, body=3), tus1.head(ID), tus1.delete(ID)])
def test_an_expired_upload_is_410(request_):
    """Expiration: at its time, before a byte is read."""
    dialogue(
        request_,
        asks(Load(ID)).gets(an_upload(offset=2, length=9, expires_at=100.0)),
        asks(Authorize),
        responds(410, {"Upload-Offset": None}),
        now=100.0,
    )


def test_a_patch_says_when_the_upload_expires():
    """Expiration, Upload-Expires."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=9, expires_at=100.0)),
        asks(Authorize),
        asks(Receive).gets(received(offset=5, expires_at=200.0)),
        responds(204, {"Upload-Expires": "Thu, 01 Jan 1970 00:03:20 GMT"}),
        now=99.0,
    )


def test_a_checksum_that_does_not_match_is_460():
    """Checksum."""
    is_sha1 = {"body": {"checksums": lambda checksums: [algorithm for algorithm, _ in checksums] == ["sha1"]}}
    dialogue(
        tus1.patch(ID, offset=2, body=3, headers=CHECKSUM),
        asks(Load(ID)).gets(an_upload(offset=2, length=9)),
        asks(Authorize),
        asks(Receive, intake=is_sha1).fails(ChecksumMismatch()),
        responds(460, {"Tus-Resumable": "1.0.0", "Upload-Offset": None}),
    )


def test_a_cut_body_with_a_checksum_is_no_success():
    """Checksum: bytes that cannot be verified are not kept."""
    dialogue(
        tus1.patch(ID, offset=2, body=3, headers=CHECKSUM),
        asks(Load(ID)).gets(an_upload(offset=2, length=9)),
        asks(Authorize),
        asks(Receive).gets(received(offset=2, cut=True)),
        responds(400),
    )


def test_delete_removes_the_upload():
    """Termination."""
    dialogue(
        tus1.delete(ID),
        asks(Load(ID)).gets(an_upload(offset=2, length=9)),
        asks(Authorize, Intent.TERMINATE),
        asks(Remove(ID)),
        responds(204, {"Tus-Resumable": "1.0.0"}),
    )


def test_a_terminated_upload_is_410():
    """Termination."""
    gone = UploadGone()
    gone.upload = an_upload(state=State.TERMINATED)
    dialogue(tus1.head(ID), asks(Load(ID)).fails(gone), asks(Authorize), responds(410, {"Upload-Offset": None}))


def test_an_upload_that_may_have_belonged_to_another_is_404():
    """Termination: nobody can read any more whose it was."""
    dialogue(tus1.head(ID), asks(Load(ID)).fails(UploadGone()), asks(Authorize), responds(404))


def test_delete_while_the_application_has_the_file_is_423():
    """Termination: the file is not removed."""
    dialogue(
        tus1.delete(ID),
        asks(Load(ID)).gets(a_file(State.HANDING_OVER)),
        asks(Authorize, Intent.TERMINATE),
        responds(423, {"Retry-After": ...}),
    )


# -- Principals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [tus1.patch(ID, offset=2, body=3), tus1.head(ID), tus1.delete(ID)])
def test_a_foreign_upload_is_404_in_the_words_for_an_unknown_one(request_):
    """An upload does not exist for another principal."""
    unknown = dialogue(request_, asks(Load(ID)).fails(UploadNotFound()), asks(Authorize).gets("bob"), responds(404))
    foreign = dialogue(
        request_,
        asks(Load(ID)).gets(an_upload(offset=2, length=9, principal="ann", expires_at=50.0)),
        asks(Authorize).gets("bob"),
        responds(404),
        now=100.0,
    )
    assert foreign == unknown


def test_the_answer_of_the_application_to_a_question_is_relayed():
    """Authorize: a response takes the place of the protocol's."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=9)),
        asks(Authorize).gets(Response(401, "Unauthorized", [("WWW-Authenticate", "Basic")], (b"who?",))),
        responds(401, {"WWW-Authenticate": "Basic", "Tus-Resumable": "1.0.0"}, b"who?"),
    )


@pytest.mark.parametrize("offset", [2, 3])
@pytest.mark.parametrize("upload", [an_upload(offset=2, length=9), a_file(), a_file(State.ACCEPTED)])
def test_a_request_that_is_not_allowed_learns_nothing(offset, upload):
    """Authorize: the question comes before every other check of the upload."""
    for request, intent in (
        (tus1.patch(ID, offset=offset, body=3), Intent.APPEND),
        (tus1.head(ID), Intent.HEAD),
        (tus1.delete(ID), Intent.TERMINATE),
    ):
        dialogue(
            request,
            asks(Load(ID)).gets(upload),
            asks(Authorize, intent, {"id": ID}).fails(Forbidden("no")),
            responds(403, {"Upload-Offset": None, "Upload-Length": None}),
        )


@pytest.mark.parametrize(("principal", "status"), [("ann", 200), ("bob", 404), (None, 404)])
def test_a_principal_that_the_caller_knows_needs_no_question(principal, status):
    """An upload does not exist for another principal."""
    tester.dialogue(
        tus1.head(ID),
        asks(Load(ID)).gets(an_upload(offset=2, length=9, principal="ann")),
        responds(status),
        principal=principal,
    )


def test_an_upload_belongs_to_the_principal_that_the_caller_knows():
    """Creation, POST."""
    tester.dialogue(
        tus1.post(length=5),
        asks(Create, {"principal": "ann"}).gets(created()),
        responds(201, {"Location": f"{URL}/{ID}"}),
        principal="ann",
    )


# -- Hand-over ----------------------------------------------------------------------------------------------------


def test_success_follows_acceptance():
    """The client gets a success response after the application has accepted the file."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=5)),
        asks(Authorize),
        *completes(a_file(), intake={"limit": 3}),
        *accepts(),
        responds(204, {"Upload-Offset": 5, "X-Result": "stored", "Content-Type": None}, b""),
    )


def test_an_outcome_that_another_holder_has_recorded_is_the_reply():
    """A lease was lost while the application had the file: the record has the last word."""
    accepted = a_file(state=State.ACCEPTED, answer=Response(204, "No Content", [("X-Result", "first")]))
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=5)),
        asks(Authorize),
        *completes(a_file()),
        asks(Offer).gets(Offered(ACCEPTED)),
        asks(Settle, Outcome.ACCEPTED).fails(UploadReplaced()),
        asks(Claim, {"id": ID}).gets(accepted),
        responds(204, {"Upload-Offset": 5, "X-Result": "first"}),
    )


def test_a_rejection_that_a_busy_record_does_not_take_is_503():
    """The client may ask again, and this request does not."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=5)),
        asks(Authorize),
        *completes(a_file()),
        asks(Offer).gets(Offered(REJECTED, outcome=Outcome.REJECTED)),
        asks(Settle, Outcome.REJECTED).fails(UploadLocked()),
        responds(503, {"Retry-After": ...}),
    )


def test_another_holder_that_is_still_at_work_is_423():
    """The client asks again, and gets what that one records."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=5)),
        asks(Authorize),
        *completes(a_file()),
        asks(Offer).gets(Offered(ACCEPTED)),
        asks(Settle, Outcome.ACCEPTED).fails(UploadReplaced()),
        asks(Claim, {"id": ID}).fails(UploadLocked()),
        responds(423),
    )


def test_a_store_may_begin_the_hand_over_in_a_step_of_its_own():
    """Success follows acceptance all the same."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=5)),
        asks(Authorize),
        *completes_first(a_file()),
        *accepts(),
        responds(204, {"Upload-Offset": 5, "X-Result": "stored"}),
    )


def test_a_rejection_is_relayed():
    """The client gets the words of the application, and the file is rejected."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=5)),
        asks(Authorize),
        *completes(a_file()),
        *rejects(),
        responds(422, {"Tus-Resumable": "1.0.0", "Upload-Offset": None}, b"no cats\n"),
    )


def test_a_file_that_is_not_taken_is_503():
    """The file is kept, and the same request asks again."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=5)),
        asks(Authorize),
        *completes(a_file()),
        *postpones(),
        responds(503, {"Retry-After": 7, "Upload-Offset": None}),
    )


def test_bytes_that_were_lost_before_a_postponement_are_409():
    """The application could not force them to the disk; the client sends them again."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=5)),
        asks(Authorize),
        *completes(a_file()),
        *postpones(upload=an_upload(offset=1, length=5)),
        responds(409, {"Upload-Offset": 1}),
    )


def test_a_creation_whose_bytes_were_lost_before_a_postponement_reports_their_offset():
    """Creation-With-Upload: the client needs the URL, and no offset is a lie."""
    dialogue(
        tus1.post(length=5, body=5),
        asks(Authorize, Intent.CREATE),
        asks(CreateWhole).gets(None),
        asks(Create, {"length": 5}).gets(created(length=5)),
        *completes(a_file()),
        *postpones(upload=an_upload(offset=0, length=5)),
        responds(201, {"Location": ..., "Upload-Offset": 0}),
    )


def test_in_the_background_the_client_does_not_wait():
    """handover = background."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=5)),
        asks(Authorize),
        asks(Receive, begin=None).gets(received(offset=5, state=State.COMPLETE)),
        asks(Promise, {"id": ID}).gets(a_file()),
        responds(204, {"Upload-Offset": 5}),
        handover="background",
    )


@pytest.mark.parametrize(("state", "offset"), [(State.COMPLETE, 4), (State.REJECTED, 4), (State.ACCEPTED, 5)])
def test_head_reports_one_byte_less_until_acceptance(state, offset):
    """Core, HEAD: clients take an offset that equals the length for success."""
    dialogue(
        tus1.head(ID),
        asks(Load(ID)).gets(a_file(state)),
        asks(Authorize, Intent.HEAD),
        responds(200, {"Upload-Offset": offset, "Upload-Length": 5}),
    )


def test_head_while_the_application_has_the_file_is_423():
    """Core, HEAD: any offset would be a guess."""
    dialogue(
        tus1.head(ID),
        asks(Load(ID)).gets(a_file(State.HANDING_OVER)),
        asks(Authorize, Intent.HEAD),
        responds(423, {"Retry-After": ..., "Upload-Offset": None}),
    )


def test_the_last_byte_again_asks_the_application_again():
    """The byte that HEAD withheld is compared with the one that is stored."""
    dialogue(
        tus1.patch(ID, offset=4, body=1),
        asks(Load(ID)).gets(a_file(attempts=1)),
        asks(Authorize, Intent.APPEND),
        asks(Peek, {"limit": 1}).gets(Peeked(b"e", cut=False)),
        asks(Claim, {"id": ID}).gets(a_file(attempts=1)),
        asks(ReadBack(1)).gets(b"e"),
        *begins(a_file(attempts=1)),
        *accepts(),
        responds(204, {"Upload-Offset": 5, "X-Result": "stored"}),
    )


def test_another_last_byte_is_400():
    """The application is not asked to take another file."""
    dialogue(
        tus1.patch(ID, offset=4, body=1),
        asks(Load(ID)).gets(a_file()),
        asks(Authorize),
        asks(Peek, {"limit": 1}).gets(Peeked(b"x", cut=False)),
        asks(Claim, {"id": ID}).gets(a_file()),
        asks(ReadBack(1)).gets(b"e"),
        responds(400),
    )


@pytest.mark.parametrize(("offset", "body"), [(2, 3), (4, 1), (0, 5)])
def test_the_last_patch_of_an_accepted_file_again_is_409(offset, body):
    """Core, PATCH: its offset is not the upload's any more. A client that asks for the offset finds the length."""
    dialogue(
        tus1.patch(ID, offset=offset, body=body),
        asks(Load(ID)).gets(a_file(State.ACCEPTED, answer=Response(200, "OK"), attempts=1)),
        asks(Authorize, Intent.APPEND),
        responds(409, {"Upload-Offset": 5}),
    )


@pytest.mark.parametrize(("offset", "body", "attempts"), [(5, 0, 1), (4, 1, 2)])
def test_an_append_at_a_reported_offset_of_an_accepted_file_gets_the_same_answer(offset, body, attempts):
    """Core, PATCH: after a failed attempt, HEAD has reported one byte less. The application is not asked again."""
    answer = Response(200, "OK", [("X-Result", "stored")])
    dialogue(
        tus1.patch(ID, offset=offset, body=body),
        asks(Load(ID)).gets(a_file(State.ACCEPTED, answer=answer, attempts=attempts)),
        asks(Authorize, Intent.APPEND),
        responds(204, {"Upload-Offset": 5, "X-Result": "stored"}),
    )


def test_the_last_patch_again_gets_the_same_rejection():
    """A rejected file is not offered again."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(a_file(State.REJECTED, answer=REJECTED)),
        asks(Authorize, Intent.APPEND),
        responds(422, {"Tus-Resumable": "1.0.0"}, b"no cats\n"),
    )


def test_a_file_that_another_request_handed_over_is_not_offered():
    """The claim finds it accepted."""
    dialogue(
        tus1.patch(ID, offset=5, body=0),
        asks(Load(ID)).gets(a_file()),
        asks(Authorize),
        asks(Peek, {"limit": 0}).gets(Peeked(b"", cut=False)),
        asks(Claim, {"id": ID}).gets(a_file(State.ACCEPTED, answer=ACCEPTED)),
        responds(204, {"Upload-Offset": 5}),
    )


def test_an_empty_file_that_is_not_taken_is_removed():
    """Creation: no offset can say that an empty file is unfinished, so its client begins again."""
    empty = an_upload(length=0, state=State.COMPLETE)
    dialogue(
        tus1.post(length=0),
        asks(Authorize, Intent.CREATE),
        asks(Create, {"length": 0}).gets(created(state=State.COMPLETE)),
        *claims(empty),
        *postpones(),
        asks(Remove(ID)),
        responds(503, {"Location": None}),
    )


# -- Hooks --------------------------------------------------------------------------------------------------------


def test_pre_create_rejects():
    """Hooks: nothing is created."""
    dialogue(
        tus1.post(length=5),
        asks(Authorize, Intent.CREATE),
        asks(Ask, HookType.PRE_CREATE, {"id": "", "length": 5}).gets(HookReply(reject=True)),
        responds(400, {"Tus-Resumable": "1.0.0", "Location": None}),
        **HOOKS,
    )


def test_pre_create_chooses_an_id_that_must_be_new():
    """Hooks: an id that exists is no new upload's."""
    dialogue(
        tus1.post(length=5),
        asks(Authorize, Intent.CREATE),
        asks(Ask, HookType.PRE_CREATE).gets(HookReply(id=OTHER)),
        asks(Load(OTHER)).gets(an_upload(id=OTHER)),
        responds(503, {"Location": None}),
        **HOOKS,
    )


def test_post_create_is_queued_for_the_upload_that_was_made():
    """Hooks."""
    upload_id = Placeholder("id")
    dialogue(
        tus1.post(length=5),
        asks(Authorize, Intent.CREATE),
        asks(Ask, HookType.PRE_CREATE),
        asks(Create).gets(created(id=OTHER)),
        asks(Queue, HookType.POST_CREATE, {"id": upload_id}),
        asks(Tell, HookType.POST_CREATE, {"id": upload_id}),
        responds(201, {"Location": f"{URL}/" + upload_id}),
        **HOOKS,
    )


def test_post_receive_stops_the_upload():
    """Hooks: the upload is terminated."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=9)),
        asks(Authorize),
        asks(Receive).gets(received(offset=4, stopped=HookReply(stop=True))),
        asks(Queue, HookType.POST_TERMINATE, {"id": ID}),
        asks(Remove(ID)),
        asks(Tell, HookType.POST_TERMINATE, {"id": ID}),
        responds(400, {"Upload-Offset": None}),
        **HOOKS,
    )


def test_pre_finish_rejects():
    """Hooks: the application is not asked, and post-finish is not delivered."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(an_upload(offset=2, length=5)),
        asks(Authorize),
        *completes_first(a_file(), begin=None),
        asks(Queue, HookType.POST_FINISH),
        asks(Ask, HookType.PRE_FINISH, {"id": ID}).gets(HookReply(reject=True)),
        asks(Unqueue, HookType.POST_FINISH),
        asks(Settle, Outcome.REJECTED, {"status": 422}),
        responds(422, {"Tus-Resumable": "1.0.0"}),
        **HOOKS,
    )


# -- Concatenation ------------------------------------------------------------------------------------------------

PART = an_upload(offset=2, length=5, concat="partial")
READY = an_upload(id=OTHER, offset=4, length=4, concat="partial", state=State.COMPLETE)
WAITING = an_upload(id=FINAL, length=9, concat="final;a b", parts=(ID, OTHER))
FILLED = replace(WAITING, offset=9, state=State.COMPLETE)


def test_a_final_upload_waits_for_its_parts():
    """Concatenation: the parts remember it, and it is not handed over."""
    final = Placeholder("final id")
    dialogue(
        tus1.concatenate(ID, OTHER),
        asks(Load(ID)).gets(PART),
        asks(Load(OTHER)).gets(READY),
        asks(Authorize, Intent.CONCATENATE, {"parts": (ID, OTHER), "length": 9}),
        asks(Create, {"id": final, "parts": (ID, OTHER), "length": 9, "is_known": False}).gets(created()),
        asks(Watch, {"id": final}).gets([PART, READY]),
        asks(Promise, {"id": final}).gets(an_upload(id=final, length=9, parts=(ID, OTHER))),
        asks(Load(ID)).gets(PART),
        asks(Load(OTHER)).gets(READY),
        asks(Watch, {"id": final}).gets([PART, READY]),
        responds(201, {"Location": f"{URL}/" + final, "Upload-Offset": None}),
    )


def test_a_final_upload_whose_creation_cannot_be_announced_is_removed():
    """Concatenation: a retry would find it, and there would be no event."""
    final = Placeholder("final id")
    dialogue(
        tus1.concatenate(ID, OTHER),
        asks(Load(ID)).gets(PART),
        asks(Load(OTHER)).gets(READY),
        asks(Authorize, Intent.CONCATENATE),
        asks(Ask, HookType.PRE_CREATE),
        asks(Create, {"id": final}).gets(created()),
        asks(Queue, HookType.POST_CREATE, {"id": final}).fails(StorageUnavailable()),
        asks(Remove, final),
        responds(503),
        **HOOKS,
    )


def fills_the_final():
    """The lines by which the last part of a waiting final upload is completed."""
    return [
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(PART),
        asks(Authorize, Intent.APPEND),
        asks(Receive).gets(received(offset=5, state=State.COMPLETE)),
        asks(FinalsOf, {"id": ID}).gets([FINAL]),
        asks(Load(FINAL)).gets(WAITING),
        asks(Load(ID)).gets(replace(PART, offset=5, state=State.COMPLETE)),
        asks(Load(OTHER)).gets(READY),
        asks(Concatenate, {"id": FINAL}, [{"id": ID}, {"id": OTHER}]).gets(FILLED),
    ]


def test_the_last_part_hands_the_final_upload_over():
    """Concatenation: the part's own client gets the answer."""
    dialogue(
        *fills_the_final(),
        *claims(FILLED),
        *accepts(),
        responds(204, {"Upload-Offset": 5, "X-Result": "stored"}),
    )


@pytest.mark.parametrize(
    ("claimed", "status", "offset"),
    [
        (UploadNotFound(), 204, 5),
        (UploadGone(), 204, 5),
        (UploadLocked(), 423, None),
        (replace(WAITING, offset=4), 503, None),  # a failed sync
    ],
    ids=["removed", "expired", "busy", "lost"],
)
def test_a_part_gets_no_error_of_its_final_upload(claimed, status, offset):
    """Concatenation: with a 404 or another offset the part's client would send its bytes again."""
    claim = asks(Claim, {"id": FINAL})
    dialogue(
        *fills_the_final(),
        claim.fails(claimed) if isinstance(claimed, Exception) else claim.gets(claimed),
        responds(status, {"Upload-Offset": offset}),
    )


def test_a_part_is_not_handed_over():
    """Concatenation."""
    dialogue(
        tus1.patch(ID, offset=2, body=3),
        asks(Load(ID)).gets(PART),
        asks(Authorize, Intent.APPEND),
        asks(Receive).gets(received(offset=5, state=State.COMPLETE)),
        asks(FinalsOf, {"id": ID}).gets([]),
        responds(204, {"Upload-Offset": 5}),
    )


def test_a_foreign_part_is_404():
    """Concatenation: a part does not exist for another principal."""
    dialogue(
        tus1.concatenate(ID, OTHER),
        asks(Load(ID)).gets(replace(PART, principal="ann")),
        asks(Load(OTHER)).gets(READY),
        asks(Authorize, Intent.CONCATENATE).gets("bob"),
        responds(404),
    )


def test_a_patch_to_a_final_upload_is_403():
    """Concatenation."""
    dialogue(
        tus1.patch(FINAL, offset=0, body=3),
        asks(Load(FINAL)).gets(WAITING),
        asks(Authorize, Intent.APPEND),
        responds(403),
    )


def test_head_of_a_final_upload_that_waits_has_no_offset():
    """Concatenation."""
    dialogue(
        tus1.head(FINAL),
        asks(Load(FINAL)).gets(WAITING),
        asks(Authorize, Intent.HEAD),
        responds(200, {"Upload-Offset": None, "Upload-Length": 9, "Upload-Concat": "final;a b"}),
    )


# -- OPTIONS ------------------------------------------------------------------------------------------------------


def test_options_names_what_works():
    """Core, OPTIONS."""
    extensions = {"Tus-Extension": "creation,checksum", "Tus-Max-Size": 9, "Tus-Checksum-Algorithm": ...}
    dialogue(tus1.request("OPTIONS"), responds(200, extensions), extensions=["checksum", "creation"], max_size=9)


def test_options_does_not_name_what_does_not_work():
    """Core, OPTIONS."""
    absent = {"Tus-Extension": None, "Tus-Max-Size": None, "Tus-Checksum-Algorithm": None}
    dialogue(tus1.request("OPTIONS"), responds(200, {"Tus-Version": "1.0.0", **absent}), extensions=[])
