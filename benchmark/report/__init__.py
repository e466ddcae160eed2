"""An evaluation for people and programs: console, JSON, CSV, LaTeX, Markdown, one offline page."""
