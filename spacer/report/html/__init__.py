"""`report.html`: run folders → typed contents → one page that needs no server and no network."""
