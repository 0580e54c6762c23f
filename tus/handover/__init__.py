"""The way of a finished file into the application: attempts, the backlog, the spool."""
