"""The main job: a spec in, a trained, measured, loadable cascade out."""
