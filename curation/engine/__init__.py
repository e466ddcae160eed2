"""What runs the stages: their form, two runners, results kept by content, the cluster."""
