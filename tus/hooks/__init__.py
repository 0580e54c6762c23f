"""Hooks at each step of an upload's life, named as in tusd: Python methods, webhooks, and the outbox of events."""
