"""The audit of an attack on an encoder: matched protocol, controls, metrics with intervals, a verdict."""

from partcrop_lab.audit.compare import Comparison, compare
from partcrop_lab.audit.exposure import agreement, auc_by_class, exposed_members, sensitivity
from partcrop_lab.audit.metrics import metrics_table
from partcrop_lab.audit.released import released_images
from partcrop_lab.audit.repeat import repeat_audit
from partcrop_lab.audit.result import AuditResult
from partcrop_lab.audit.run import audit
from partcrop_lab.audit.stats import smallest_detectable_auc

__all__ = [
    "AuditResult",
    "Comparison",
    "agreement",
    "auc_by_class",
    "audit",
    "compare",
    "exposed_members",
    "metrics_table",
    "released_images",
    "repeat_audit",
    "sensitivity",
    "smallest_detectable_auc",
]
