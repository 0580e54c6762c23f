"""The same failures as in ``test_acceptance.py``, under tus-js-client over the IETF protocol."""

import pytest

from tests.acceptance.clients import TUSJS_IETF_KINDS
from tests.acceptance.rows import ENDS_TUSJS, OUTSIDE, row
from tests.acceptance.site import FAULTS


@pytest.mark.node
@pytest.mark.parametrize("fault", FAULTS + OUTSIDE)
@pytest.mark.parametrize("kind", TUSJS_IETF_KINDS)
def test_tusjs_over_ietf(faulty_site, faulty_proxy, tusjs, kind, fault):
    belief, keys = row(faulty_site, faulty_proxy, tusjs.speaking("ietf-draft-05"), kind, fault)
    if fault not in ENDS_TUSJS:
        assert belief.succeeded, belief
    if belief.succeeded:
        assert keys
