"""Certificates that verify servers, and the client's own."""

from __future__ import annotations

import os
import ssl
from typing import TypeAlias

import httpx2

Verify: TypeAlias = "bool | str | os.PathLike[str] | ssl.SSLContext"
Cert: TypeAlias = "str | os.PathLike[str] | tuple[str | os.PathLike[str], ...]"


def ssl_context(verify: Verify = True, cert: Cert | None = None) -> ssl.SSLContext:
    """Return how servers are verified and what they are shown.

    Args:
        verify: True for the certificates that the system trusts, or those of the variable ``SSL_CERT_FILE``; False for
            any; a path of trusted certificates, in a file or a directory of OpenSSL's; a context of the caller's.
        cert: a path of a certificate and its key in one file, or ``(cert, key)``, or ``(cert, key, password)``.

    Raises:
        ValueError: a file cannot be used.
    """
    try:
        if isinstance(verify, (bool, ssl.SSLContext)):
            context = httpx2.create_ssl_context(verify)
        elif os.path.isdir(verify):
            context = ssl.create_default_context(capath=os.fspath(verify))
        else:
            context = ssl.create_default_context(cafile=os.fspath(verify))
    except OSError as error:
        raise ValueError(
            f"verify must be a file or directory of certificates in PEM; it is {verify} ({_why(error)})"
        ) from None
    if cert is not None:
        files = (cert,) if isinstance(cert, (str, os.PathLike)) else cert
        chain, key, password = (*files, None, None)[:3]
        try:  # a password that is a function keeps OpenSSL from asking on the terminal
            context.load_cert_chain(chain, key, lambda: str(password or ""))  # type: ignore[arg-type]
        except OSError as error:
            raise ValueError(
                f"cert must be a certificate and its key in PEM; it is {', '.join(map(str, files[:2]))} ({_why(error)})"
            ) from None
    return context


def _why(error: OSError) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return (reason or error.strerror or str(error)).replace("_", " ").lower()
