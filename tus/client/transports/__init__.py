"""How requests reach the server: an interface, and its implementation over httpx2, for threads and for event loops."""
