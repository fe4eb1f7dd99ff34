"""The configuration: settings, their checks, and values derived from them.

`load` turns a composed Hydra config into typed `Settings`, and reports all mistakes at once: values that the settings
classes do not allow (`reader`), and values that contradict each other (`rules`). Nothing heavy is imported, so mistakes
show within a second. `model_files` checks the model's files.
"""
