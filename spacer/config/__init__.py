"""The configuration: settings, their checks, and values derived from them.

`load` turns a composed Hydra config into typed `Settings`, and reports all mistakes at once. It checks for three kinds:
values that the dataclasses of `settings` do not allow (`reader`), values out of range (`bounds`), and values that
contradict each other (`rules`). Nothing heavy is imported, so mistakes show within a second. `model_files`
checks the model's files.
"""
