"""What many dialogues share: a server, how a body completes an upload, and how the application gets the file."""

from dataclasses import replace

import tus.testing.dialogue
from tus.models import Outcome, Response, State
from tus.protocols.effects import Begin, Claim, CreateWhole, Offer, Offered, Receive, Received, Settle
from tus.testing.dialogue import an_upload, asks, received

ACCEPTED = Response(200, "OK", [("X-Result", "stored"), ("Content-Type", "text/html")], (b"a page",))
REJECTED = Response(422, "Unprocessable Content", [("Content-Type", "text/plain")], (b"no cats\n",))
BUSY = Response(503, "Service Unavailable", [("Retry-After", "7")], (b"later\n",))


def dialogue(request, *lines, **options):
    """A dialogue with a server that asks what each request may do."""
    __tracebackhide__ = True
    return tus.testing.dialogue.dialogue(request, *lines, **{"authorize": print, **options})


def a_file(state=State.COMPLETE, **values):
    """An upload of five bytes, all of which are stored."""
    return an_upload(**{"offset": 5, "length": 5, "state": state, **values})


def claims(file):
    """The lines by which an exchange that finds a complete upload gets the right to hand it over."""
    return [asks(Claim, {"id": file.id}).gets(file), *begins(file)]


def begins(file):
    """The line by which an exchange records that the application is asked."""
    return [asks(Begin).gets(replace(file, state=State.HANDING_OVER, attempts=file.attempts + 1))]


def completes(file, **expected):
    """The line by which a body completes an upload, and the hand-over begins in the same step."""
    begun = {"state": State.HANDING_OVER, "attempts": file.attempts + 1, "is_begun": True}
    return [asks(Receive, begin={"is_last": False}, **expected).gets(received(**_whole(file) | begun))]


def creates_whole(file):
    """The creation of a file with all its bytes, and the begin of its hand-over."""
    upload = replace(file, state=State.HANDING_OVER, attempts=1)
    return asks(CreateWhole, {"length": file.length}).gets(Received(upload, is_begun=True))


def completes_first(file, **expected):
    """The lines by which a body completes an upload, and the hand-over begins after that."""
    return [asks(Receive, **expected).gets(received(**_whole(file))), *claims(file)]


def _whole(file):
    return {"offset": file.offset, "length": file.length, "state": State.COMPLETE}


def offers(said, outcome, **settled):
    """The lines by which the application is asked, answers, and its answer is recorded."""
    return [asks(Offer).gets(Offered(said)), asks(Settle, outcome, **settled)]


def accepts():
    return offers(ACCEPTED, Outcome.ACCEPTED)


#: The same as an application says it.
REJECTING = replace(REJECTED, headers=[*REJECTED.headers, ("Tus-Outcome", "rejected")])


def rejects():
    return offers(REJECTING, Outcome.REJECTED, answer={"status": 422})


def postpones(said=BUSY, upload=None):
    """The same for an application that postpones the file; ``upload``: as it is then."""
    offer, settle = offers(said, Outcome.POSTPONED, answer=None)
    return [offer, settle.gets(upload or a_file())]
