// Shows the one incident of a standalone file: the data is in the document, and nothing is fetched.
"use strict";
PW.showIncident(document.getElementById("main"), JSON.parse(document.getElementById("data").textContent), null);
