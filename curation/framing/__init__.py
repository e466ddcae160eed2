"""What is seen in the frame: drawn text and marks, colours, the one crop, and pictures that show it."""
