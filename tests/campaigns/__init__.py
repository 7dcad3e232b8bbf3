"""Campaigns: seeded cases of hostile files, faults and kills. ``python -m tests.campaigns``.

docs/reliability.md says what they do. A module is a campaign, or a part of the machinery:
``engine`` forks and watches cases, ``trial`` is what a case sees, ``watch`` notices opened files,
``outcome`` names what a case came to, ``material`` makes the models that cases spoil.
"""
