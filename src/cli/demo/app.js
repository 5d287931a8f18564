document.getElementById('own').textContent = 'own script: ran';
fetch('/status.json')
  .then((answer) => answer.json())
  .then((status) => { document.getElementById('fetch').textContent = 'own data: ' + status.status; });
