"""Story scripts: read, checked, written; a contract with writers, generation and benchmark."""
