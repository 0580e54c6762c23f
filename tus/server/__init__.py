"""One request from its adapter to its response: the service, the runner, request bodies, downloads."""
