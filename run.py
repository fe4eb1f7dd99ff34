"""`python run.py`, the command line of `spacer.cli`, from a checkout. `python run.py --help` tells what there is."""

from spacer.cli import run

if __name__ == "__main__":
    run()
