import pytest


@pytest.mark.parametrize(
    ("imports", "is_known"), [("fairseq_l2t.core, fairseq.checkpoint_utils", True), ("fairseq", False)]
)
def test_the_order_of_imports_does_not_matter(run_command, imports, is_known):
    source = f"""
import sys, {imports}
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.tasks import TASK_REGISTRY
print("l2t_dlf" in TASK_REGISTRY, "dynamic_teacher_loss" in CRITERION_REGISTRY, "fairseq_l2t" in sys.modules)
"""
    assert run_command(["python", "-c", source], cwd="/").stdout.split()[-3:] == [str(is_known)] * 3
