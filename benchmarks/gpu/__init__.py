"""`make gpu`: on a machine with a GPU, build, check every op, time it, compare with a roofline."""
