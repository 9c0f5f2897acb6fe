"""Published preference sets and other trainers' formats: recognise a file, and read it as what it is."""
