"""The import path of version 0.1 for prepared data. It stays.

from mt2st.dataset import PreparedDataset, carve_validation
"""

from mt2st.data.prepared import PreparedDataset, PreparedSplit
from mt2st.data.splits import carve_validation, leaked_images, without_leaked

__all__ = ["PreparedDataset", "PreparedSplit", "carve_validation", "leaked_images", "without_leaked"]
