"""A page to play with models in a browser.

``drawing.py`` draws what the page shows, ``page.py`` is the page (Gradio), ``serve.py`` serves it,
and ``space.py`` writes it as a folder for a Space of the Hugging Face Hub.
"""
