"""Hashes that run along while a file is written, and whose state can be kept where that is possible.

hashlib gives no state out. The functions of libcrypto that it rests on do, as a plain struct of a public header, which
has been the same since SHA-2 was added. They are used only where libcrypto is of version 3 or later, and only once the
struct was seen to be what it should be: each is tried against hashlib first, with its state taken out and put into
another. Wherever anything is missing or unfamiliar hashlib does the work, and a state cannot be kept.

What is kept is in nobody's format: the chaining value as SHA-2 defines it, most significant byte first, and the bytes
of the last block that is not whole. So another version of libcrypto, or another machine, can go on from it.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable
from functools import cache
from types import SimpleNamespace
from typing import Any, BinaryIO

from tus.checksums import ALGORITHMS, RUNNING, Hashed, Hasher

_BLOCK = 1 << 20  # bytes read at a time
_OLDEST = 3  # of libcrypto; before that its low-level functions may end the process in FIPS mode
_SPARE = 64  # bytes behind the struct, which nothing may touch


class Resumable:
    """A :class:`~tus.checksums.Hasher` whose state can be taken out and put in.

    Args:
        functions: libcrypto's, see :func:`_functions`.
        offset: bytes that went into the state.
        state: what :meth:`state` gave.
    """

    def __init__(self, functions: SimpleNamespace, offset: int = 0, state: bytes = b"") -> None:
        self._functions = functions
        self._context: Any = functions.context()
        functions.init(ctypes.byref(self._context))
        if offset:
            word = functions.word_size
            for index in range(8):
                self._context.chain[index] = int.from_bytes(state[word * index : word * (index + 1)], "big")
            tail = state[8 * word :]
            self._context.high, self._context.low = divmod(8 * offset, 1 << 8 * word)
            ctypes.memmove(self._context.block, tail, len(tail))
            self._context.used = len(tail)

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        if isinstance(data, memoryview):  # a writable one is lent without a copy
            data = data.cast("B") if data.contiguous and not data.readonly else bytes(data)
        if len(data):
            lent = data if isinstance(data, bytes) else ctypes.byref(ctypes.c_char.from_buffer(data))
            self._functions.update(ctypes.byref(self._context), lent, len(data))

    def digest(self) -> bytes:
        copy = type(self._context).from_buffer_copy(self._context)
        out = ctypes.create_string_buffer(8 * self._functions.word_size)
        self._functions.final(out, ctypes.byref(copy))
        return out.raw

    def state(self) -> bytes:
        """The chaining value and the bytes of the block that is not whole."""
        chain = b"".join(value.to_bytes(self._functions.word_size, "big") for value in self._context.chain)
        return chain + bytes(self._context.block[: self._context.used])

    def is_intact(self) -> bool:
        """Whether nothing was written behind the struct."""
        return not any(self._context.spare)


@cache
def _functions(algorithm: str) -> SimpleNamespace | None:
    """What libcrypto has for an algorithm, None where they cannot be trusted with it."""
    try:
        import _hashlib

        library = ctypes.CDLL(getattr(_hashlib, "__file__", None))  # and what that is linked with
        library.OpenSSL_version_num.restype = ctypes.c_ulong
        if library.OpenSSL_version_num() >> 28 < _OLDEST or _hashlib.get_fips_mode():
            return None
        functions = _declared(library, algorithm)
        return functions if _works(functions, algorithm) else None
    except (ImportError, AttributeError, OSError, ValueError):
        return None


def _declared(library: Any, algorithm: str) -> SimpleNamespace:
    block_size, chain_size = RUNNING[algorithm]
    word: Any = ctypes.c_uint32 if chain_size == 32 else ctypes.c_uint64

    class Context(ctypes.Structure):
        """SHA256_CTX or SHA512_CTX of openssl/sha.h."""

        _fields_ = (
            ("chain", word * 8),
            ("low", word),  # of the number of bits
            ("high", word),
            ("block", ctypes.c_ubyte * block_size),
            ("used", ctypes.c_uint),
            ("digest_size", ctypes.c_uint),
            ("spare", ctypes.c_ubyte * _SPARE),
        )

    init, update, final = (getattr(library, f"{algorithm.upper()}_{name}") for name in ("Init", "Update", "Final"))
    init.argtypes = (ctypes.c_void_p,)
    update.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    final.argtypes = (ctypes.c_char_p, ctypes.c_void_p)
    return SimpleNamespace(context=Context, init=init, update=update, final=final, word_size=chain_size // 8)


def _works(functions: SimpleNamespace, algorithm: str) -> bool:
    """Whether states can be taken out and put in, wherever that is done, and the digest is hashlib's all the same."""
    data = bytes(index * 7 & 0xFF for index in range(400))
    expected = hashlib.new(algorithm, data).digest()
    for cut in (0, 1, 55, 63, 64, 65, 111, 127, 128, 129, 256, 399, 400):
        first = Resumable(functions)
        first.update(data[:cut])
        second = Resumable(functions, cut, first.state())
        second.update(memoryview(bytearray(data[cut:])))
        if second.digest() != expected or not (first.is_intact() and second.is_intact()):
            return False
    # The number of bits has two words: adding one block carries over.
    block_size, chain_size = RUNNING[algorithm]
    brim = (1 << chain_size) // 8 - block_size
    context = Resumable(functions, brim, bytes(chain_size))
    context.update(bytes(block_size))
    return (context._context.low, context._context.high) == (0, 1)


class Hashing:
    """Hashes that run over a file.

    Args:
        algorithms: names, keys of :data:`RUNNING`.
        kept: the states to go on from; see :meth:`can_go_on`.

    Attributes:
        offset: the bytes that went in.
    """

    def __init__(self, algorithms: Iterable[str], kept: Hashed | None = None) -> None:
        self.offset = 0 if kept is None else kept.offset
        self._hashers: list[Hasher] = []
        start = 0
        for algorithm in algorithms:
            functions = _functions(algorithm)
            if functions is None:
                assert not self.offset, "nothing was kept here"
                self._hashers.append(ALGORITHMS[algorithm]())
                continue
            block_size, chain_size = RUNNING[algorithm]
            end = start + chain_size + self.offset % block_size
            self._hashers.append(Resumable(functions, self.offset, b"" if kept is None else kept.values[start:end]))
            start = end

    @staticmethod
    def beginning(algorithms: Iterable[str]) -> bytes:
        """The states before the first byte, which need no more than to be of the right size."""
        return b"".join(bytes(RUNNING[algorithm][1]) for algorithm in algorithms)

    @staticmethod
    def can_go_on(algorithms: Iterable[str], kept: Hashed) -> bool:
        """Whether the hashes can be continued from what was kept, here and in this process."""
        names = tuple(algorithms)
        size = sum(RUNNING[name][1] + kept.offset % RUNNING[name][0] for name in names)
        return not kept.is_whole and len(kept.values) == size and all(_functions(name) is not None for name in names)

    def update(self, block: bytes | bytearray | memoryview) -> None:
        """Take the file's next bytes."""
        for hasher in self._hashers:
            hasher.update(block)
        self.offset += len(block)

    def read(self, file: BinaryIO, length: int) -> None:
        """Take what is missing from the file itself, as far as it goes."""
        file.seek(self.offset)
        while block := file.read(min(_BLOCK, length - self.offset)):
            self.update(block)

    def state(self) -> Hashed | None:
        """What another one can go on from, None where that cannot be kept."""
        states = [hasher.state() for hasher in self._hashers if isinstance(hasher, Resumable)]
        return Hashed(self.offset, False, b"".join(states)) if len(states) == len(self._hashers) else None

    def result(self) -> Hashed:
        """The digests, if this was all."""
        return Hashed(self.offset, True, b"".join(hasher.digest() for hasher in self._hashers))
