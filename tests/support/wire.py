"""Requests over a raw socket, whose head and body a test sends in any pieces."""

SIZE = 3_000_000
DATA = bytes(range(251)) * (SIZE // 251) + bytes(SIZE % 251)


def head_of(method, path, *fields):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Tus-Resumable: 1.0.0", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


def reply(connection):
    """The status and the fields of the next response, whose body is dropped."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, "the connection has ended"
        head += byte
    status, *fields = head.decode().split("\r\n")[:-2]
    fields = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    left = int(fields.get("content-length", 0))
    while left:
        left -= len(connection.recv(left))
    return int(status.split()[1]), fields


def create(connection, length=SIZE, path="/", *more):
    connection.sendall(head_of("POST", path, f"Upload-Length: {length}", "Content-Length: 0", *more))
    status, fields = reply(connection)
    assert status == 201
    return fields["location"].removeprefix("http://localhost")


def patch(path, offset, length, *more):
    fields = ("Content-Type: application/offset+octet-stream", f"Upload-Offset: {offset}", f"Content-Length: {length}")
    return head_of("PATCH", path, *fields, *more)


def offset_of(connection, path):
    connection.sendall(head_of("HEAD", path))
    status, fields = reply(connection)
    assert status == 200
    return int(fields["upload-offset"])
