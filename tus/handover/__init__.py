"""Hand-over of finished files to the application: attempts, the backlog, receivers, the spool."""
