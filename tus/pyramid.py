"""``config.include("tus.pyramid")``: uploads in Pyramid with pyramid_retry.

pyramid_retry copies the body of every request before the view is called, so that it can call the view again. An upload
that is cut off would lose all of its bytes, and a large one would first be written to a temporary file. This include
keeps pyramid_retry from copying the bodies of uploads. The view gets the server's own stream, and a later attempt at
the request continues from what the first one stored.
"""

from __future__ import annotations

from typing import Any

from tus.adapters.replay import ReplayableEnviron
from tus.adapters.wsgi import Environ, WsgiAdapter
from tus.protocols.exchange import is_upload


def includeme(config: Any) -> None:
    """Wrap the execution policy of the application, whatever other includes set it."""
    from pyramid.config import PHASE3_CONFIG
    from pyramid.interfaces import IExecutionPolicy
    from pyramid.router import default_execution_policy

    def wrap() -> None:
        registry = config.registry
        policy = registry.queryUtility(IExecutionPolicy, default=default_execution_policy)

        def receive(environ: Environ, router: Any) -> Any:
            if is_upload(WsgiAdapter(environ).request):
                ReplayableEnviron.install(environ)
            return policy(environ, router)

        registry.registerUtility(receive, IExecutionPolicy)

    config.action("tus.pyramid", wrap, order=PHASE3_CONFIG + 1)  # after pyramid_retry's, which sets a policy
