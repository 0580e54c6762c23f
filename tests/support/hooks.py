"""Hooks that record what they are called with."""


class Recorder:
    """Hooks that write down what they are told, and answer what they are to answer."""

    def __init__(self, **replies):
        self.replies = {name.replace("_", "-"): reply for name, reply in replies.items()}
        self.seen = []

    def _hear(self, event):
        self.seen.append(event)
        reply = self.replies.get(event.type)
        if isinstance(reply, BaseException):
            raise reply
        return reply() if callable(reply) else reply

    pre_create = post_create = post_receive = pre_finish = post_finish = pre_terminate = post_terminate = _hear

    @property
    def types(self):
        return [str(event.type) for event in self.seen]
