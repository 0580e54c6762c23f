"""The two protocols, each as a table of requests and a reader of responses: tus 1.0.0, and the drafts of the IETF."""
