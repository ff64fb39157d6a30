// The request on the screen as code that a person can run. Pure functions.

/** For a shell. The quoted here-document keeps the JSON as it is: no quote in a document needs escaping. */
export function curl(url, request, hasKey) {
  const key = hasKey ? ` \\\n  -H "Authorization: Bearer $CROSSRAY_API_KEY"` : "";
  return `curl ${url} \\
  -H "Content-Type: application/json"${key} \\
  --data-binary @- <<'JSON'
${JSON.stringify(request, null, 2)}
JSON`;
}

/** For Python with requests. Strings, whole numbers and lists look the same in JSON and in Python. */
export function python(url, request, hasKey) {
  const body = JSON.stringify(request, null, 4).replaceAll("\n", "\n    ");
  const key = hasKey ? `\n    headers={"Authorization": "Bearer " + os.environ["CROSSRAY_API_KEY"]},` : "";
  return `${hasKey ? "import os\n\n" : ""}import requests

response = requests.post(
    "${url}",${key}
    json=${body},
    timeout=60,
)
response.raise_for_status()
for result in response.json()["results"]:
    print(result["index"], result["relevance_score"])`;
}
