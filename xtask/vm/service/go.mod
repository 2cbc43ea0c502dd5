module example.com/service-prog

go 1.21
