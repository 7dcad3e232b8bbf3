from cascadezoo_hello import register_stages

from cascadezoo.testing import assert_stage


def test_the_stage_follows_the_contract():
    for entry in register_stages():
        assert_stage(entry)
