"""The forms of preference rows. A new form is one function and one `Format`, in the file of rows like it."""
