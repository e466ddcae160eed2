"""From the signals of the scan to shots and what they are like: numpy in, numpy out."""
