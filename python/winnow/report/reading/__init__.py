"""Opens results of winnow, looks at them for damage, and reads what a report needs of each kind of result."""
