"""`report.html`: run folders → typed contents → one self-contained page, without server or network."""
