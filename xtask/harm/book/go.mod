module book

go 1.19
