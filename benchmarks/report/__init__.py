"""What is shown of the records: tables, pictures, pages, with intervals."""
