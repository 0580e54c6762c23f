"""What the client does, as generators without I/O. A driver performs the commands that they yield."""
