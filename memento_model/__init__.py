"""The Memento model: Wan2.2 with a dual-query memory. Not in this release; see CHANGELOG.md."""
