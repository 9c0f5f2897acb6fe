"""How the official tools save a judge's texts: one file for each benchmark."""
