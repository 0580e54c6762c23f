"""tus 1.0.0 and its extensions (https://tus.io/protocols/resumable-upload)."""
