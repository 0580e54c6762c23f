"""Header fields as pure functions, shared by the server and the client."""
