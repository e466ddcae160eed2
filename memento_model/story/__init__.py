"""Stories shot by shot: plan, memory, sampling, files and pages."""
