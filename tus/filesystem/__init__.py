"""POSIX files and locks, shared by the directory store, the spool, the outbox and import."""
