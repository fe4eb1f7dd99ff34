"""The benchmarks: what they ask, and how their authors score it. One module each, named as in `conf/benchmark/`."""
