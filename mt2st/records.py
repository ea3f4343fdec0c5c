"""The import path of version 0.1 for adapters. It stays.

from mt2st.records import Answer, DatasetCard, Example
"""

from mt2st.data.card import Adapter, Answer, DatasetCard, Example

__all__ = ["Adapter", "Answer", "DatasetCard", "Example"]
