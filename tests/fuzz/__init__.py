"""The fuzz room: heads that nobody would send, and values that nobody would write.

``heads`` makes heads of requests from a seed. ``sites`` sends them through a whole ``Filter`` or ``TusMiddleware`` over
a store in memory, and checks the replies. ``values`` does the same to what is parsed elsewhere. ``corpus`` has a small
text file for each head that once found something, or that was built to. The default suite replays the corpus and a few
thousand heads; ``python -m tests.fuzz --heads 10000000 --processes 2`` is the long form.
"""
